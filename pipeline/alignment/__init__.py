"""Do pictures and spikes agree in time? Errors over shifted windows, what they say, and the correction."""

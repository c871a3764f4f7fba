"""What `spk doctor` checks of the environment. To import any of it takes nothing but Python itself."""

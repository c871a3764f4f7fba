"""report.html: what an evaluation found, on one page that loads nothing."""

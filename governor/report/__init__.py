"""Reports, plots and terminal views."""

"""Pages of runs: what a run folder holds as one HTML file, alone or beside other runs, and in a notebook."""

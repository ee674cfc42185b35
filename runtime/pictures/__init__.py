"""Pictures of graphs: where tasks stand and lines run, for a terminal, for SVG and for Graphviz."""

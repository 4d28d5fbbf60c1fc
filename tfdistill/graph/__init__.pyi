# Made by `make api` from tfdistill/public.py.
from tfdistill.graph.names import named_layers as named_layers

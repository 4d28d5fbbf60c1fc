# Made by `make api` from tfdistill/public.py.
from tfdistill.graph.names import named_layers as named_layers
from tfdistill.graph.profiling import LayerProfile as LayerProfile
from tfdistill.graph.profiling import ProfileRecord as ProfileRecord
from tfdistill.graph.profiling import profile as profile

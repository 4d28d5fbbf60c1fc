# Made by `make api` from tfdistill/public.py.
from tfdistill.compress.cluster.cluster import Cluster as Cluster
from tfdistill.compress.plan import LayerPlan as LayerPlan
from tfdistill.compress.plan import Plan as Plan
from tfdistill.compress.prune.prune import Prune as Prune
from tfdistill.compress.quantize.calibrate import Quantize as Quantize
from tfdistill.compress.quantize.quantize_aware import QuantizeAware as QuantizeAware
from tfdistill.compress.step import Step as Step

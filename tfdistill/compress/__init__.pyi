# Made by `make api` from tfdistill/public.py.
from tfdistill.compress.channels.call import ChannelCall as ChannelCall
from tfdistill.compress.channels.call import LeaveWhole as LeaveWhole
from tfdistill.compress.channels.plan import ChannelLayerPlan as ChannelLayerPlan
from tfdistill.compress.channels.plan import ChannelPlan as ChannelPlan
from tfdistill.compress.channels.prune_channels import PruneChannels as PruneChannels
from tfdistill.compress.channels.rules.table import register_channels as register_channels
from tfdistill.compress.cluster.cluster import Cluster as Cluster
from tfdistill.compress.low_rank.low_rank import LowRank as LowRank
from tfdistill.compress.low_rank.plan import LowRankLayerPlan as LowRankLayerPlan
from tfdistill.compress.low_rank.plan import LowRankPlan as LowRankPlan
from tfdistill.compress.plan import LayerPlan as LayerPlan
from tfdistill.compress.plan import Plan as Plan
from tfdistill.compress.prune.prune import Prune as Prune
from tfdistill.compress.quantize.calibrate import Quantize as Quantize
from tfdistill.compress.quantize.quantize_aware import QuantizeAware as QuantizeAware
from tfdistill.compress.shrink.shrink_like import shrink_like as shrink_like
from tfdistill.compress.step import Step as Step

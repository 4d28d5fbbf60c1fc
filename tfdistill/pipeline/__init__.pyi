# Made by `make api` from tfdistill/public.py.
from tfdistill.pipeline.latency import FileLatency as FileLatency
from tfdistill.pipeline.latency import LatencyRatio as LatencyRatio
from tfdistill.pipeline.road import Road as Road
from tfdistill.pipeline.road import under_teacher as under_teacher

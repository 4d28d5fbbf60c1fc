# Made by `make api` from tfdistill/public.py.
from tfdistill.preflight.findings import Finding as Finding
from tfdistill.preflight.findings import Preflight as Preflight
from tfdistill.preflight.run import check as check

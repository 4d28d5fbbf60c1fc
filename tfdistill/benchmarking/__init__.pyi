# Made by `make api` from tfdistill/public.py.
from tfdistill.benchmarking.record import BenchmarkRecord as BenchmarkRecord
from tfdistill.benchmarking.run import benchmark as benchmark
from tfdistill.benchmarking.targets.adb import Adb as Adb
from tfdistill.benchmarking.targets.cpu import Cpu as Cpu
from tfdistill.benchmarking.targets.ssh import Ssh as Ssh
from tfdistill.benchmarking.timing import Timing as Timing

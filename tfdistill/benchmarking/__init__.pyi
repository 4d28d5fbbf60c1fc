# Made by `make api` from tfdistill/public.py.
from tfdistill.benchmarking.available import TargetRecord as TargetRecord
from tfdistill.benchmarking.available import available_targets as available_targets
from tfdistill.benchmarking.record import BenchmarkRecord as BenchmarkRecord
from tfdistill.benchmarking.run import benchmark as benchmark
from tfdistill.benchmarking.targets.adb import Adb as Adb
from tfdistill.benchmarking.targets.cpu import Cpu as Cpu
from tfdistill.benchmarking.targets.delegate import Delegate as Delegate
from tfdistill.benchmarking.targets.gpu import Gpu as Gpu
from tfdistill.benchmarking.targets.micro import Micro as Micro
from tfdistill.benchmarking.targets.npu import Npu as Npu
from tfdistill.benchmarking.targets.ssh import Ssh as Ssh
from tfdistill.benchmarking.timing import Timing as Timing

# Made by `make api` from tfdistill/public.py.
from tfdistill.benchmarking.comparing import compare_speed as compare_speed
from tfdistill.benchmarking.history import History as History
from tfdistill.benchmarking.history import SpeedChange as SpeedChange
from tfdistill.benchmarking.operations import OperationProfile as OperationProfile
from tfdistill.benchmarking.operations import TimedOperation as TimedOperation
from tfdistill.benchmarking.operations import profile_operations as profile_operations
from tfdistill.benchmarking.peak import Roofline as Roofline
from tfdistill.benchmarking.peak import roofline as roofline
from tfdistill.benchmarking.record import BenchmarkRecord as BenchmarkRecord
from tfdistill.benchmarking.record import ComparedFile as ComparedFile
from tfdistill.benchmarking.record import SpeedComparison as SpeedComparison
from tfdistill.benchmarking.run import benchmark as benchmark
from tfdistill.benchmarking.targets.cpu import Cpu as Cpu
from tfdistill.benchmarking.timing import Timing as Timing

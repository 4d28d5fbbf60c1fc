# Made by `make api` from tfdistill/public.py.
from tfdistill.convert.census import CensusRecord as CensusRecord
from tfdistill.convert.census import census as census
from tfdistill.convert.file_tensors import FileTensor as FileTensor
from tfdistill.convert.variants import Tolerances as Tolerances
from tfdistill.convert.variants import VARIANTS as VARIANTS
from tfdistill.convert.variants import Variant as Variant
from tfdistill.tflite.export import ExportRecord as ExportRecord
from tfdistill.tflite.export import export_tflite as export_tflite
from tfdistill.tflite.inspection.preserved import check_preserved_structure as check_preserved_structure
from tfdistill.tflite.verification.comparison import IndexComparison as IndexComparison
from tfdistill.tflite.verification.comparison import OutputComparison as OutputComparison
from tfdistill.tflite.verification.verify import VerificationRecord as VerificationRecord
from tfdistill.tflite.verification.verify import verify as verify

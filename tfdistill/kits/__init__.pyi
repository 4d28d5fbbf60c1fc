# Made by `make api` from tfdistill/public.py.
from tfdistill.kits.make import KitRecord as KitRecord
from tfdistill.kits.make import kit as kit

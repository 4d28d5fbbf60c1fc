import tfdistill

reveal_type(tfdistill.Distiller)
reveal_type(tfdistill.compress.Prune)
reveal_type(tfdistill.census)

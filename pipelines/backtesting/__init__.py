"""The stages run again on the past, ablations and the report. The only package that runs other stages."""

"""One file for each kind of export; see ``catalogue.EXPORTERS``."""

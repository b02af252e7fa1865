"""Named templates, one file each: ``TEMPLATE``, a ``TemplateSpec`` whose source is cited."""

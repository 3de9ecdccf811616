"""One kind of database a file, named as the scheme of its addresses."""

"""What turns a data set's rows into conversations; one file a format."""

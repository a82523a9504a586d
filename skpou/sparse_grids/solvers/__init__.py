"""Ridge regression and classes on the columns of a grid."""

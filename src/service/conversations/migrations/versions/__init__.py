"""One file for each change of the tables, named by its revision; a file that was released is never changed."""

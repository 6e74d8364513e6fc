"""`make inspect`: instances and documents of a mix on a terminal. command.py is the door; books.py finds, parts.py knows, show.py draws."""

"""`make push`: a built mix to a data set of the hub, as a release that `DATA=<owner>/<name>` reads back (pipeline/release.py).

contents.py      what belongs to the release: files of the store, and those made for it
repository.py    a data set on the hub: what it holds, commits to it, and what its refusals mean
upload.py        from the one to the other: what is missing is sent, the list of the release last, and all is compared in the end
command.py       the command
"""

"""A searchable collection of pictures: an embedded LanceDB table, in a folder or on an object store.

entries.py     a row: where a picture is, its vector, and what a model said about it
store.py       the table: versions, readers, the one writer, upkeep
describing.py  what a PaliGemma is asked about each picture
changes.py     files on disk against rows of the index: new, changed, moved, gone
building.py    decode ahead, encode in batches, write what is new
filters.py     "more than two dogs" -> the store's SQL
query.py       words, a picture, read text -> rankings -> one ranking
reranking.py   the best few again, by how likely a PaliGemma finds the words
gallery.py     the results as a page or one picture
"""

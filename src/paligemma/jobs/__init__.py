"""Tasks over many pictures: every source of pictures, every task, results that survive whatever ends the process.

items | pictures tables shards     a source -> items with ids that stay, nothing opened yet
asked                              `detect:cat;dog` -> which verb of the predictor is asked what
tiles videos | work                items -> opened once, encoded once, asked everything -> rows; large pictures in parts, videos followed
rows | parts journal               rows -> parts of results, whole or not there; what is done; the finished tables
facts | job                        what was ordered; the loop that does what is not done yet, in this process
following                          a source that changed anywhere -> what is done, in its new order
shortening html_pictures | alt_texts alt_tables     captions -> alt texts of a web site: short enough, beside the pictures or in a table
ray_engine                         the same order on Ray Data
"""

"""Pictures that a model labels before people do: a finished job of `detect` or `segment` -> files that annotation tools import.

doubt labelled | pictures                                    what was found, how unsure the model is of it; pictures beside it
coco yolo voc labelstudio cvat fiftyone | formats            one module for each kind of file
export                                                       results -> a folder, the most doubtful pictures first
"""

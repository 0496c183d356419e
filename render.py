"""Renders a trained model: pictures of the given views, or of a smooth path, and videos.

python render.py -m output/fox                                        # train and test views
python render.py -m output/fox --skip_train                           # test views only
python render.py -m output/fox --skip_train --skip_test --video       # a video along a smooth path
python render.py -m output/fox --novel_view --num_views 120           # the path's pictures as well
python render.py -m output/fox --novel_view --multi_interpolate       # two views between each two
"""

import sys

from feature_gs.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["render", *sys.argv[1:]]))

"""Trains 3D Gaussians on a folder of photos with camera poses (COLMAP or Blender).

python train.py -s path/to/scene                                   # 30,000 steps into output/scene
python train.py -s path/to/scene -m output/name -r 2 --eval        # half size, every 8th photo for testing
python train.py -s path/to/scene --eval --iterations 7000          # a quarter of the time
python train.py -s path/to/scene --strategy mcmc --cap_max 100000  # at most 100,000 Gaussians
python train.py -m output/name --resume                            # go on after Ctrl-C
python train.py --help                                             # everything else
"""

import sys

from feature_gs.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))

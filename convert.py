"""Makes a scene of photos or of a film: where each photo was taken, and the photos without lens distortion.

python convert.py -s path/to/scene                                 # photos in path/to/scene/input
python convert.py -s path/to/scene --video film.mp4 --fps 2        # two photos of each second of a film
python convert.py -s path/to/scene --matcher sequential            # photos in order: quicker
python convert.py -s path/to/scene --skip_matching                 # only undistort: distorted/ is there
python convert.py -s path/to/scene --resize                        # images_2, images_4, images_8 as well
python convert.py --help                                           # everything else
"""

import sys

from feature_gs.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))

"""Scenes: photos with their cameras and first points, read from COLMAP and Blender folders."""

from feature_gs.scenes.camera import Camera, read_cameras_json, write_cameras_json
from feature_gs.scenes.scene import Scene, View, load_scene

__all__ = ["Camera", "Scene", "View", "load_scene", "read_cameras_json", "write_cameras_json"]

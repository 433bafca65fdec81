"""Recovery of volumes and instances from snapshots, images and DR copies."""

"""Images for boards: roots of Debian packages, scripts for U-Boot, device trees with an identity.

| module | what it does |
|---|---|
| `recipe` | what an image is to be made of: the model of `image.toml` |
| `apt_sources`, `packages` | which packages, from where, checked by apt against Debian's signatures |
| `tree`, `debs` | the root as it grows: paths with owners, in memory; contents in one temporary file |
| `accounts`, `services`, `alternatives`, `dpkg_database`, `settle` | what the packages' scripts would have done |
| `tar_output`, `cpio_output`, `ext4_output`, `disk_output` | the root as a file |
| `manifest` | what is in it, as JSON |
| `build` | all of that, one after the other |
| `board_disk_init.sh` | PID 1 of a board that starts from a disk of ours, until it has found it |
| `uboot_image`, `device_tree`, `identity` | small things that boot programs read |
"""

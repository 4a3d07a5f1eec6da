"""The bridge to what runs below an operating system: initramfs images and the packages they are made of."""

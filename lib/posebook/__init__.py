"""posebook: heatmap-free and lightweight human pose estimation, paper by paper."""

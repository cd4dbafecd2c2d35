"""RayClusters of KubeRay, for one owner in one namespace."""

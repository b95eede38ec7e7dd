"""SWR, the container registry of Huawei Cloud and of Open Telekom Cloud."""

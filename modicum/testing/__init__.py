"""The cellar: contracts and toys with which authors of plug-ins test theirs."""

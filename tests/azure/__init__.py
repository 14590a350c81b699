"""A stand-in for Azure on this machine: the control plane is ours, the blob service is Azurite.

The real SDKs talk to it under the real host names, because a proxy (HTTPS_PROXY) leads those here and a certificate
authority made at start (REQUESTS_CA_BUNDLE) vouches for them. Every other host is refused and recorded.
"""

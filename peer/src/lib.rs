//! Peers over WebSocket: frames, serializers, middleware, topics with flow control, reconnect.

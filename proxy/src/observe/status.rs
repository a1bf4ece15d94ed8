//! The private listener: is the process alive, is it ready, what does it count, what does it serve.

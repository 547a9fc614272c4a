// Entry for whoever starts the ES module; bootstrap.cjs is the same thing and starts a little faster.
import './bootstrap.cjs';

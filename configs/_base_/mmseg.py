# Goes before `mmseg::...` in a list of bases. MMEngine looks for the distribution "mmsegmentation"
# there, but the maintained fork has another name; the module has the same one in both.
__import__("mmengine").config.utils.MODULE2PACKAGE["mmseg"] = "mmseg"

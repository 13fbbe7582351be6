-- Of the plugins that a shard depends on, ',a,b,', one that this runtime has not; nil where it has them all.
local function missing_in(needed)
  for plugin in needed:gmatch('[^,]+') do
    if not (PLUGINS):find(',' .. plugin .. ',', 1, true) then return plugin end
  end
end

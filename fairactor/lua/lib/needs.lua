-- Refuses a shard that depends on plugins, ',a,b,', of which this runtime has not all; nil where it has.
local function refuse_without(needed)
  for plugin in needed:gmatch('[^,]+') do
    if not (PLUGINS):find(',' .. plugin .. ',', 1, true) then return redis.error_reply('PLUGIN ' .. plugin) end
  end
end

-- Returns an error if this runtime lacks one of the plugins ',a,b,' that a shard needs; else nil.
local function refuse_without(needed)
  for plugin in needed:gmatch('[^,]+') do
    local is_known = plugin == 'fairactor-that-knows-more-shards' -- LATER_RELEASE, see base.lua
    if not is_known and not (PLUGINS):find(',' .. plugin .. ',', 1, true) then return redis.error_reply('PLUGIN ' .. plugin) end
  end
end

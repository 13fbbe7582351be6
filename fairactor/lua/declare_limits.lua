-- Notes what the code of actors says about their limits. It counts where nothing else is set.
--
-- KEYS  1 META of the shard
-- ARGV  1 and on: for each actor its name, as JSON text without quotation marks, and its settings, packed; '' for none
-- Reply 1 if `reopen` has to follow, else 0
--
-- Safe to repeat: it sets the same values.

-- @include lib/intact.lua
-- @include lib/lanes.lua

local changes = {}
for i = 1, #ARGV, 2 do
  local packed = call('HGET', LIMIT_SETTINGS, ARGV[i])
  local declared = packed and cmsgpack.unpack(packed).declared
  if (declared and cmsgpack.pack(declared) or '') ~= ARGV[i + 1] then changes[#changes + 1] = i end
end
if #changes == 0 then return call('HEXISTS', META, 'reopening') end -- one may have broken off

-- @include lib/change_limit.lua

for _, i in ipairs(changes) do
  local field, settings = read_settings(ARGV[i], '')
  settings.declared = ARGV[i + 1] ~= '' and cmsgpack.unpack(ARGV[i + 1]) or nil
  change_limit(field, '', settings)
end

begin_writing()
write_settings()
save_counts()
save_shard()
return call('HEXISTS', META, 'reopening')

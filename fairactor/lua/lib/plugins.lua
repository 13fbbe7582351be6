-- What plugins do in this script. Their texts stand where `-- @hook` says: they read and decide there, and what they write
-- is written by the functions that they leave in `later`.

-- @include lib/base.lua

local later, last = {}, {} -- what comes before the records of tasks are written, and what comes after
local function write_these(writes)
  for i, write in ipairs(writes) do
    write()
    writes[i] = nil
  end
end

-- What the texts of one plugin have in common.
local shared = {}
local function share(plugin)
  shared[plugin] = shared[plugin] or {}
  return shared[plugin]
end

-- A field of HELD: priority, stamp and tenant of a task, and the plugin that holds it back; what that keeps of it follows.
local HOLD = '>BdHc0Bc0'
local function pack_hold(priority, stamp, name, holder)
  return struct.pack(HOLD, priority, stamp, #name, name, #holder, holder)
end

-- Tasks that this script accepts and a plugin holds back -> who, what that keeps of it, its record, and where that goes.
local newly_held = {}

-- From now on every runtime of the namespace needs that plugin; it is told in all that have it.
local depends = {}
local function depend_on(plugin)
  if depends[plugin] then return end
  depends[plugin] = true
  local before = shard.plugins or ','
  if before:find(',' .. plugin .. ',', 1, true) then return end
  shard.plugins = before .. plugin .. ','
  later[#later + 1] = function() call('HSET', META, 'plugins', shard.plugins) end
  last[#last + 1] = function() call('PUBLISH', EVENTS, 'p' .. plugin) end
end

-- What plugins do in this script. Their Lua stands at `-- @hook` lines: it reads and decides, and puts functions that
-- write into `later` and `last`.

-- @include lib/base.lua

local later, last = {}, {} -- run before the records of tasks are written, and after
local function write_these(writes)
  for i, write in ipairs(writes) do
    write()
    writes[i] = nil
  end
end

-- What the hooks of one plugin share.
local shared = {}
local function share(plugin)
  shared[plugin] = shared[plugin] or {}
  return shared[plugin]
end

-- A field of HELD: priority, stamp and tenant of a task, and the plugin that holds it back; what that keeps follows.
local HOLD = '>BdHc0Bc0'
local function pack_hold(priority, stamp, name, holder)
  return struct.pack(HOLD, priority, stamp, #name, name, #holder, holder)
end

local FOLLOWER = ':key' -- holds back what follows another task with its key (replace.lua); keeps its field of KEYED

-- accepted task that a plugin holds back -> plugin, what it keeps, record, list for the record
local newly_held = {}

-- Every runtime of the namespace needs the plugin from now on; those that have it are notified.
local depends = {}
local function depend_on(plugin)
  if depends[plugin] then return end
  depends[plugin] = true
  local before = shard.plugins or ','
  if before:find(',' .. plugin .. ',', 1, true) then return end
  shard.plugins = before .. plugin .. ','
  local prefix = shard.later_only and ',' .. LATER_RELEASE or ''
  later[#later + 1] = function() call('HSET', META, 'plugins', prefix .. shard.plugins) end
  last[#last + 1] = function() call('PUBLISH', EVENTS, 'p' .. plugin) end
end

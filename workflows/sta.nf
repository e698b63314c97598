// The whole run: the parameters and the data are checked; each data set is imported, its particles extracted at the
// first binning, a first reference made and refined; then one level after the other; at the end the results.
include { RECIPE } from '../modules/core/recipe'
include { REFERENCES as TILT_SERIES_FILES ; REFERENCES as STACK_FILES } from '../modules/core/references'
include { PLAN } from '../modules/core/plan'
include { IMPORT } from '../modules/core/import'
include { EXTRACT } from '../modules/relion/extract'
include { INITIAL_REFERENCE } from '../subworkflows/initial_reference'
include { REFINE } from '../subworkflows/refine'
include { LADDER } from '../subworkflows/ladder'
include { RESULTS } from '../modules/core/results'

workflow STA {
    take:
    request // every parameter, as JSON
    given // the parameter files and the sample sheet
    project // the directory that relative paths start from

    main:
    RECIPE(request, given)
    sources = RECIPE.out.map { file -> json(file).datasets }
    tables = sources.map { rows -> rows.collect { row -> row.tilt_series }.unique() }
    TILT_SERIES_FILES(tables, project, tables.map { names -> existing(names) })
    tilt_series = TILT_SERIES_FILES.out.map { file -> file.readLines() }
    STACK_FILES(tilt_series.map { names -> existing(names).collect { file -> file.toString() } }, project, tilt_series.map { names -> existing(names) })
    stacks = STACK_FILES.out.map { file -> existing(file.readLines()) }

    inputs = sources.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] })
        .map { row -> existing(row[0..-3].collectMany { one -> [one.particles, one.tilt_series, one.reference] }.findAll()) + row[-2] + row[-1] }
    PLAN(RECIPE.out, inputs)
    plans = PLAN.out.flatMap { file -> json(file).datasets }.map { plan -> [plan.subMap(['id', 'project', 'binds']), plan] }

    IMPORT(
        plans.combine(tilt_series.map { names -> [existing(names)] }).combine(stacks.map { files -> [files] }).map { meta, plan, series, images ->
            [meta, plan.subMap(['launch_dir', 'particles', 'tilt_series']), existing([plan.particles, plan.tilt_series]) + series + images]
        }
    )
    EXTRACT(plans.join(IMPORT.out.job).map { meta, plan, tilt_series_job, particles -> [meta, plan.levels[0].extract, tilt_series_job, particles] })

    INITIAL_REFERENCE(
        plans.join(IMPORT.out.job).join(EXTRACT.out).map { meta, plan, tilt_series_job, particles, extract ->
            [meta, plan.initial_reference, plan.levels[0], tilt_series_job, particles, extract, plan.reference ? file(plan.reference) : []]
        }
    )
    REFINE(
        plans.join(IMPORT.out.job).join(EXTRACT.out).join(INITIAL_REFERENCE.out.references)
            .map { meta, plan, tilt_series_job, _particles, extract, star, alignment, reference ->
                [meta, plan.levels[0], tilt_series_job, plan.levels[0].refine.low_pass, star, extract, alignment, reference, []]
            }
    )
    LADDER(
        plans.join(IMPORT.out.job).join(REFINE.out.particles).map { meta, plan, tilt_series_job, _picks, particles ->
            [meta, plan.levels.drop(1), tilt_series_job, particles]
        }
    )

    jobs = in_order(IMPORT.out.job.map { meta, job, _particles -> [meta, job] }.mix(EXTRACT.out, INITIAL_REFERENCE.out.jobs, REFINE.out.jobs, LADDER.out.jobs))
    maps = in_order(REFINE.out.maps.mix(LADDER.out.maps))
    RESULTS(
        PLAN.out,
        jobs.map { rows -> rows.collect { row -> row[0] } },
        jobs.map { rows -> rows.collect { row -> row[1] / 'job.json' } },
        maps.map { rows -> rows.collect { row -> "${row[0]}:${row[1].name}".toString() } },
        maps.map { rows -> rows.collect { row -> row[1] / 'postprocess.mrc' } },
    )
}

// One list of [data set, job], always in the same order, so that a resumed run finds its results in the cache.
def in_order(jobs) {
    return jobs.map { meta, job -> [meta.id, job] }.toSortedList { one, other -> key(one) <=> key(other) }
}

def key(row) {
    return "${row[0]} ${row[1].parent.name} ${row[1].name}"
}

def json(path) {
    return new groovy.json.JsonSlurper().parse(path)
}

// With what links lead to, so that it is bound into containers, too.
def existing(names) {
    return names.collect { name -> file(name) }.findAll { path -> path.exists() }.collectMany { path -> [path, path.toRealPath()] }.unique()
}

// The whole run: other programs' data are imported, the parameters and the data checked; each data set's tables get the
// names of the run, its picks are chosen by 2D classification where that is asked for, its particles are extracted at the
// first binning, a first reference made and refined; then one level after the other; at bin 1 the tilt series are
// polished; the best map is looked at; at the end the results. Runs from existing results begin further down.
include { SOURCES } from '../modules/core/sources'
include { IMPORT_DATA } from '../modules/core/import_data'
include { RECIPE } from '../modules/core/recipe'
include { REFERENCES as TILT_SERIES_FILES ; REFERENCES as STACK_FILES } from '../modules/core/references'
include { PLAN } from '../modules/core/plan'
include { IMPORT } from '../modules/core/import'
include { SLAB_CLASSES } from '../subworkflows/slab_classes'
include { LADDER } from '../subworkflows/ladder'
include { POLISHING } from '../subworkflows/polishing'
include { BEST_MAP } from '../subworkflows/best_map'
include { RESULTS } from '../modules/core/results'
include { EXPORT_COPICK } from '../modules/core/export_copick'
include { binds_of ; existing ; json } from '../subworkflows/values'
include { within } from './configuration'

workflow STA {
    take:
    request // every parameter, as JSON
    given // the parameter files and the sample sheet
    needs // as of needs_of

    main:
    imported = channel.value([])
    tomograms = channel.value([:])
    if (needs.imports) {
        SOURCES(request, given, needs.places)
        IMPORT_DATA(
            SOURCES.out.flatMap { document -> json(document).datasets }
                .map { one -> [[id: one.id, project: one.project, binds: binds_of(one.roots), label: label_of(one)], one.settings, existing(one.files)] }
        )
        tomograms = SOURCES.out.map { document -> json(document).tomograms }
        imported = IMPORT_DATA.out.toSortedList { one, other -> one.first().id <=> other.first().id }
    }
    RECIPE(
        request,
        given,
        imported.map { rows -> rows.collectEntries { meta, directory -> [meta.id, directory.parent.toString()] } },
        imported.map { rows -> rows.collect { _meta, directory -> directory } },
        tomograms,
    )
    sources = RECIPE.out.map { document -> json(document).datasets }
    tables = sources.map { rows -> rows.findAll { row -> row.tilt_series }.collect { row -> [row.tilt_series, row.launch_dir] }.unique() }
    TILT_SERIES_FILES(tables, tables.map { rows -> existing(names_in(rows)) })
    tilt_series = TILT_SERIES_FILES.out.map { document -> json(document) }
    STACK_FILES(
        tilt_series.map { rows -> rows.collectMany { name, project -> existing([name]).collect { found -> [found.toString(), project] } } },
        tilt_series.map { rows -> existing(names_in(rows)) },
    )
    inputs = tilt_series.map { rows -> [existing(names_in(rows))] }
        .combine(STACK_FILES.out.map { document -> [existing(names_in(json(document)))] }) // tilt series, stacks

    PLAN(
        sources.map { rows -> binds_of(rows.collectMany { one -> one.export ? one.export.roots : [] }) },
        RECIPE.out,
        sources.map { rows ->
            [rows.collectMany { one -> [one.particles, one.tilt_series, one.reference, one.motion, one.mask, one.slab_tomograms, one.export?.config] }.findAll()]
        }
            .combine(inputs)
            .map { names, series, stacks -> existing(names) + series + stacks },
    )
    plans = PLAN.out.flatMap { document -> json(document).datasets }
        .map { plan -> [plan.subMap(['id', 'project', 'binds']) + [label: label_of(plan)], within(plan, needs)] }

    // A task of each data set for itself, with its own files: what changes in one repeats nothing of the others.
    IMPORT(
        plans.map { meta, plan ->
            def source = plan.subMap(['launch_dir', 'particles', 'tilt_series', 'motion', 'lost']) +
                [symmetry: plan.recipe.refine3D.sym_name, bfactor_per_dose: plan.recipe.dose_weighting.bfactor_per_dose]
            [meta, source, existing(([plan.particles, plan.tilt_series, plan.motion] + plan.files).findAll())]
        }
    )
    begun = plans.join(IMPORT.out.job).map { meta, plan, job, particles -> [meta, begin(plan, job, particles)] }
    done = IMPORT.out.job.map { meta, job, _particles -> [meta, job] }
    if (needs.slabs) {
        SLAB_CLASSES(begun, needs)
        begun = SLAB_CLASSES.out.states
        done = done.mix(SLAB_CLASSES.out.jobs)
    }
    LADDER(begun, needs)
    done = done.mix(LADDER.out.jobs)
    ended = LADDER.out.states
    if (needs.ctf_refine || needs.polish) {
        last = ended.branch { _meta, state ->
            polished: state.plan.polishing
            done: true
        }
        POLISHING(last.polished, needs)
        done = done.mix(POLISHING.out.jobs)
        ended = last.done.mix(POLISHING.out.states)
    }
    BEST_MAP(ended, needs)
    done = done.mix(BEST_MAP.out)

    jobs = in_order(done)
    pictures = jobs.map { rows -> rows.collectMany { id, job -> shown(job).collect { map -> [id, "${job.parent.name}/${job.name}/${map.name}".toString(), map] } } }
    RESULTS(
        PLAN.out,
        jobs.map { rows -> rows.collect { id, _job -> id } },
        jobs.map { rows -> rows.collect { _id, job -> job / 'job.json' } },
        pictures.map { rows -> rows.collect { id, name, _map -> [id, name] } },
        pictures.map { rows -> rows.collect { _id, _name, map -> map } },
        ended.map { meta, _state -> meta.id }.toSortedList(),
        workflow.nextflow.version.toString(),
    )
    // A data set without its end, where no step failed, must not look like one that was never asked for.
    RESULTS.out.results.subscribe { results ->
        def lost = unfinished(json(results))
        if (lost && !a_step_failed()) {
            error("No step failed, and these are not complete: ${lost.join(', ')}. This is a fault of the pipeline's: please report it, with plan.json and .nextflow.log.")
        }
    }
    if (needs.export) {
        particles = IMPORT.out.job.map { meta, _job, picks -> [meta, picks] }.mix(done)
        EXPORT_COPICK(RESULTS.out.results.combine(PLAN.out).combine(in_order(particles).map { rows -> [rows] }).flatMap { results, plan, rows -> exports(json(results), json(plan), rows) })
    }

    emit:
    plan = PLAN.out
    jobs = done // [meta, job] of every job that is complete
    ended = ended // [meta, state] of every data set that came to its end
}

def unfinished(results) {
    return results.datasets.findAll { found -> found.status == 'unfinished' }.collect { found -> found.id }
}

// Whether any task of this run has not ended well. Nextflow itself tells only when the run is over.
def a_step_failed() {
    def since = workflow.start.toInstant().toEpochMilli() - 1000
    def places = workflow.workDir.listFiles().findAll { part -> part.name.size() == 2 && part.isDirectory() }.collectMany { part -> part.listFiles().toList() }
    return places.any { place ->
        def begun = place.resolve('.command.run')
        def code = place.resolve('.exitcode')
        begun.exists() && begun.lastModified() >= since && !(code.exists() && code.text.trim() == '0')
    }
}

// What a data set begins with: see states.nf.
def begin(plan, job, particles) {
    def motion = plan.motion ? "Import/${job.name}/motion.star".toString() : ''
    def series = [tables: [tomograms: "Import/${job.name}/tomograms.star".toString(), motion: motion], imported: job, ctf_refine: [], polish: [], lost: plan.lost]
    return [plan: plan, series: series, particles: particles, mask: plan.mask ? file(plan.mask) : [], map: plan.reference ? file(plan.reference) : []]
}

// One list of [data set, job], always in the same order, so that a resumed run finds its results in the cache.
def in_order(jobs) {
    return jobs.map { meta, job -> [meta.id, job] }.toSortedList { one, other -> key(one) <=> key(other) }
}

def key(row) {
    def (id, job) = row
    return "${id} ${job.parent.name} ${job.name}"
}

// The maps of a job that the report shows: results, and classes.
def shown(job) {
    if (job.parent.name == 'PostProcess' && !job.name.endsWith('_start')) {
        // None where a step of polishing led to no map, or none could be sharpened.
        return [job / 'postprocess.mrc'].findAll { map -> map.exists() }
    }
    if (job.parent.name == 'Class2D') {
        return job.listFiles().findAll { map -> map.name ==~ /run_it\d+_classes\.mrcs/ }.sort { map -> map.name }.takeRight(1)
    }
    if (job.parent.name == 'LocalRes') {
        return ['relion_locres.mrc', 'relion_locres_filtered.mrc'].collect { name -> job / name }
    }
    if (job.parent.name == 'Class3D' && !job.name.contains('_template')) {
        return job.listFiles().findAll { map -> map.name ==~ /run_class\d+\.mrc/ }.sort { map -> map.name }
    }
    return []
}

// The beginning of the tags of a data set's tasks, where there are several.
def label_of(dataset) {
    return dataset.project ? "${dataset.id}: ".toString() : ''
}

def names_in(rows) {
    return rows.collect { name, _project -> name }
}

// What of a complete run goes into copick: of each data set, where to, the final particles, and the sizes of tomograms.
def exports(results, plan, rows) {
    return results.datasets.findAll { found -> found.status == 'complete' && found.final }.collectMany { found ->
        def planned = plan.datasets.find { one -> one.id == found.id }
        def meta = [id: found.id, project: found.project, label: label_of(found), binds: binds_of(planned.export ? planned.export.roots : [])]
        def paths = [found.final.particles, "${found.project ? "${found.project}/" : ''}Import/tilt_series/tomograms.star"].collect { place -> in_job(found, place, rows) }
        return planned.export ? [[meta, planned.export] + paths] : []
    }
}

// A file of a job where its task left it, by its path in the output directory.
def in_job(dataset, place, rows) {
    def (kind, name, file_name) = place.tokenize('/').takeRight(3)
    def row = rows.find { id, job -> id == dataset.id && job.name == name && job.parent.name == kind }
    return row.last() / file_name
}
